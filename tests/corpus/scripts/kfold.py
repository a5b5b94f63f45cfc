import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import KFold
from torch import nn

x, y = load_digits(return_X_y=True)
x, y = torch.tensor(x[:200], dtype=torch.float32) / 16, torch.tensor(y[:200])
scores = []
for fold, (train, test) in enumerate(KFold(3, shuffle=True, random_state=0).split(x)):
    torch.manual_seed(fold)
    model = nn.Linear(64, 10)
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    for epoch in range(3):
        for pick in torch.randperm(len(train)).split(32):
            bx, by = x[train][pick], y[train][pick]
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(bx), by)
            loss.backward()
            optimizer.step()
            # ADD print("small", loss)
        # ADD print("weights", model.weight.sum())
    score = (model(x[test]).argmax(1) == y[test]).float().mean().item()
    scores.append(score)
    print(f"fold {fold} score {score:.3f}")
    # ADD print("so_far", sum(scores))
print("mean", sum(scores) / len(scores))
