"""scikit-learn's LogisticRegressionCV on the frozen features, standardised: what a careful user would write in a
notebook. Cross-validation chooses C, so it trains on the validation images too.
"""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from multitl_rivals.answering import Task, answer
from multitl_rivals.lite0 import Lite0, compute_features

FOLDS = 5
STRENGTHS = np.logspace(-5, 1, 7)  # of C; features have variance 1


def classify(task: Task) -> tuple[np.ndarray, str]:
    network = Lite0(task.train.pixels.shape[1])
    parts = (task.train, task.validation) if len(task.validation.labels) else (task.train,)
    features = np.concatenate([compute_features(network, part.pixels) for part in parts])
    labels = np.concatenate([part.labels for part in parts])
    model = LogisticRegressionCV(
        Cs=STRENGTHS,
        cv=StratifiedKFold(FOLDS, shuffle=True, random_state=task.seed),
        scoring="neg_log_loss",
        max_iter=1000,
        l1_ratios=(0,),
        use_legacy_attributes=False,
    )
    fitted = make_pipeline(StandardScaler(), model).fit(features, labels)
    return fitted.predict_proba(compute_features(network, task.test.pixels)), f"C = {model.C_:.0e}"


if __name__ == "__main__":
    answer(classify)
