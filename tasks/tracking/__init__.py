"""Stage *tracking*: MLflow runs of a study, written by explicit ids, resumed and never doubled."""
