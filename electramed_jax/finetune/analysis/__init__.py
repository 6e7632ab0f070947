"""After training: comparison of runs, errors, scores on other files, sweeps over settings, the BLURB table."""
