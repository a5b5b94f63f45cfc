import copy

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from tqdm.auto import tqdm


class EarlyStopping:
    """Early stops the training if validation loss doesn't improve after a given patience."""

    def __init__(self, patience=3, verbose=False, delta=0.0):
        self.patience = patience
        self.verbose = verbose
        self.delta = delta
        self.counter = 0
        self.best_score = None
        self.early_stop = False
        self.val_loss_min = np.inf
        self.best_model = None

    def __call__(self, val_loss, model):
        score = -val_loss
        if self.best_score is None:
            self.best_score = score
            self.save_checkpoint(val_loss, model)
        elif score < self.best_score + self.delta:
            self.counter += 1
            print(f"EarlyStopping counter: {self.counter} out of {self.patience}")
            if self.counter >= self.patience:
                self.early_stop = True
        else:
            self.best_score = score
            self.save_checkpoint(val_loss, model)
            self.counter = 0

    def save_checkpoint(self, val_loss, model):
        if self.verbose:
            print(
                f"Validation loss decreased ({self.val_loss_min:.6f} --> {val_loss:.6f}).  Saving model ..."
            )
        self.best_model = copy.deepcopy(model.state_dict())
        self.val_loss_min = val_loss


def main():
    torch.manual_seed(17)
    x = torch.randn(90, 12)
    y = x[:, :1] * 0.5 + 0.5 * torch.randn(90, 1)
    train_loader = DataLoader(TensorDataset(x[:60], y[:60]), batch_size=12, shuffle=True)
    valid_loader = DataLoader(TensorDataset(x[60:], y[60:]), batch_size=30)
    model = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    early_stopping = EarlyStopping(patience=3, verbose=True)
    avg_train_losses, avg_valid_losses = [], []
    for epoch in tqdm(range(1, 31)):
        train_losses, valid_losses = [], []
        model.train()
        for data, target in train_loader:
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(data), target)
            loss.backward()
            optimizer.step()
            train_losses.append(loss.item())
            # ADD print("so_far", np.average(train_losses))
        model.eval()
        for data, target in valid_loader:
            valid_losses.append(nn.functional.mse_loss(model(data), target).item())
        avg_train_losses.append(np.average(train_losses))
        avg_valid_losses.append(np.average(valid_losses))
        print(
            f"[{epoch:>3}/30] train_loss: {avg_train_losses[-1]:.5f} valid_loss: {avg_valid_losses[-1]:.5f}"
        )
        early_stopping(avg_valid_losses[-1], model)
        # ADD print("kept", early_stopping.best_model["0.weight"].norm())
        if early_stopping.early_stop:
            print("Early stopping")
            break
    model.load_state_dict(early_stopping.best_model)
    print("final", model[0].weight.sum().item())


main()
