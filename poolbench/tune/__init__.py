"""Tune hyperparameters with Optuna: one study per comparison group, judged on validation images only.

    tuning/journal.log              Optuna's storage, all studies in one; optuna-dashboard opens it
    tuning/<study>/study.json       the record: default, design, trials, confirmation, winner
    tuning/<study>/cells            a ledger of the trials: every seed of a trial is a cell judged on validation images
    tuning/<study>/running          a lock per running trial

Every study has the same budget and starts from the default of its group, so comparisons of tuned poolings are fair. The
winner is confirmed on fresh seeds. The test images are used once, by ``run --tuned``.
"""
