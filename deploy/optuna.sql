-- The database of Optuna's studies, beside that of MLflow.
CREATE DATABASE optuna;
