import numpy as np

rng = np.random.default_rng(0)
X = rng.normal(size=(200, 5))
t = X @ np.arange(5.0) + 0.1 * rng.normal(size=200)
w = np.zeros(5)
velocity = np.zeros(5)
for epoch in range(6):
    for i in rng.permutation(200)[:50]:
        gradient = (X[i] @ w - t[i]) * X[i]
        velocity = 0.9 * velocity - 0.005 * gradient
        w += velocity
        # ADD print("g", float(np.abs(gradient).sum()))
    # ADD print("velocity", velocity)
    print("epoch", epoch, "error", float(((X @ w - t) ** 2).mean()))
