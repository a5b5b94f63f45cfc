import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier

x, y = load_digits(return_X_y=True)
x = x / 16
rng = np.random.RandomState(0)
model = SGDClassifier(random_state=0)
for epoch in range(5):
    order = rng.permutation(300)
    for start in range(0, 300, 100):
        pick = order[start : start + 100]
        model.partial_fit(x[pick], y[pick], classes=np.arange(10))
        # ADD print("coef", np.abs(model.coef_).sum())
    # ADD print("intercept", model.intercept_.sum())
    print("epoch", epoch, "score", model.score(x[300:600], y[300:600]))
