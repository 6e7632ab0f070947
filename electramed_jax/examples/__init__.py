"""Examples of the Python interface, in cells that editors and Jupyter (with jupytext) run one by one."""
