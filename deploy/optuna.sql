-- The database of the studies, beside that of MLflow.
CREATE DATABASE optuna;
