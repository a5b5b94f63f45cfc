"""Classify scikit-learn's handwritten digits: an ordinary training script, recorded by florlog.

    python examples/digits.py              train; every step goes to the log
    florlog resume examples/digits.py      continue after a crash, under the same run
    florlog replay examples/digits.py      the values of log statements that were added

The store is $FLORLOG_STORE, else ./.florlog.
"""

import argparse
import hashlib
import json
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import florlog


def load_data(batch_size):
    """A shuffling loader for training, one in fixed order for validation."""
    images, labels = load_digits(return_X_y=True)
    split = train_test_split(images / 16, labels, test_size=0.2, stratify=labels, random_state=0)
    x_train, x_val, y_train, y_val = (torch.from_numpy(part) for part in split)
    train = TensorDataset(x_train.float().reshape(-1, 1, 8, 8), y_train)
    val = TensorDataset(x_val.float().reshape(-1, 1, 8, 8), y_val)
    return DataLoader(train, batch_size, shuffle=True), DataLoader(val, 120)


def build_model():
    return nn.Sequential(
        nn.Conv2d(1, 64, 3, padding=1),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.Conv2d(64, 96, 3, padding=1),
        nn.BatchNorm2d(96),
        nn.ReLU(),
        nn.Conv2d(96, 96, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.25),
        nn.Linear(96 * 4 * 4, 256),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(256, 10),
    )


@torch.no_grad()
def predict(model, loader):
    """The true and the predicted labels of every image in the loader."""
    model.eval()
    targets, predictions = [], []
    for x, y in florlog.loop("val", loader):
        targets.append(y)
        predictions.append(model(x).argmax(dim=1))
    return torch.cat(targets), torch.cat(predictions)


def digest(model):
    """SHA-256 of every parameter and buffer: two runs agree bit for bit exactly if these agree."""
    sha = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        sha.update(name.encode() + tensor.numpy().tobytes())
    return sha.hexdigest()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write a digest of the final parameters here, as JSON")
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    train_loader, val_loader = load_data(args.batch_size)
    model = build_model()
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=3, gamma=0.5)

    params = {key: value for key, value in vars(args).items() if key != "out"}
    with florlog.run("digits", params=params) as run:
        run.track(model=model, optimizer=optimizer, scheduler=scheduler, loader=train_loader)
        for epoch in run.loop("epoch", range(args.epochs)):
            model.train()
            for x, y in run.loop("step", train_loader):
                loss = F.cross_entropy(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                run.log(loss=loss)
            scheduler.step()
            targets, predictions = predict(model, val_loader)
            accuracy = (predictions == targets).float().mean().item()
            run.log(accuracy=accuracy)
            print(f"epoch {epoch}  accuracy {accuracy:.4f}", flush=True)

        # Still inside the run: a resume does not run code after it if the kill came just there.
        if args.out:
            args.out.write_text(json.dumps({"parameters": digest(model)}) + "\n")


if __name__ == "__main__":
    main()
