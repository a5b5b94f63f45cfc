from collections import defaultdict

import numpy as np
import torch
from sklearn.datasets import make_classification
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

SEED = 42


def make_model():
    return nn.Sequential(nn.Linear(10, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.2), nn.Linear(12, 1))


def train_one_epoch(model, loader, optimizer, criterion):
    model.train()
    losses = []
    for xb, yb in loader:
        optimizer.zero_grad()
        loss = criterion(model(xb).squeeze(1), yb)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        # ADD print("batch_loss", losses[-1])
    return np.mean(losses)


def validate(model, loader):
    model.eval()
    preds, trues = [], []
    with torch.no_grad():
        for xb, yb in loader:
            preds.append(torch.sigmoid(model(xb).squeeze(1)).cpu().numpy())
            trues.append(yb.cpu().numpy())
    return np.concatenate(preds), np.concatenate(trues)


X, y = make_classification(n_samples=120, n_features=10, n_informative=5, random_state=SEED)
X = StandardScaler().fit_transform(X).astype(np.float32)
y = y.astype(np.float32)
dataset = TensorDataset(torch.from_numpy(X), torch.from_numpy(y))
results = defaultdict(list)
oof = np.zeros(len(y))
skf = StratifiedKFold(n_splits=3, shuffle=True, random_state=SEED)
for fold, (train_idx, val_idx) in enumerate(skf.split(X, y), 1):
    torch.manual_seed(SEED + fold)
    train_loader = DataLoader(Subset(dataset, train_idx), batch_size=20, shuffle=True)
    val_loader = DataLoader(Subset(dataset, val_idx), batch_size=40)
    model = make_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    criterion = nn.BCEWithLogitsLoss()
    best_auc, best_preds = 0.0, None
    for epoch in range(1, 4):
        train_loss = train_one_epoch(model, train_loader, optimizer, criterion)
        preds, trues = validate(model, val_loader)
        auc = roc_auc_score(trues, preds)
        if auc > best_auc:
            best_auc, best_preds = auc, preds
        # ADD print("f1_now", f1_score(trues, preds > 0.5))
        print(f"Fold {fold} | Epoch {epoch} | loss: {train_loss:.4f} | auc: {auc:.4f}")
    oof[val_idx] = best_preds
    results["auc"].append(best_auc)
    results["f1"].append(f1_score(y[val_idx], best_preds > 0.5))
    print(f"Fold {fold} best AUC: {best_auc:.4f}")
    # ADD print("so_far", np.mean(results["f1"]))
print(f"CV AUC: {np.mean(results['auc']):.4f} ± {np.std(results['auc']):.4f}")
print(f"OOF accuracy: {accuracy_score(y, oof > 0.5):.4f}")
