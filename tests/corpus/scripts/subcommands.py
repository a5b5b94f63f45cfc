import argparse
import sys

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, random_split


class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3)
        self.drop = nn.Dropout(0.25)
        self.fc = nn.Linear(width * 36, 4)

    def forward(self, x):
        x = self.drop(F.relu(self.conv(x)))
        return F.log_softmax(self.fc(torch.flatten(x, 1)), dim=1)


def make_data(args):
    generator = torch.Generator().manual_seed(args.seed)
    images = torch.rand(120, 1, 8, 8, generator=generator)
    labels = images[:, 0, :4].mean((1, 2)).mul(40).long() % 4
    return random_split(list(zip(images, labels)), [96, 24], generator=generator)


def train(args, model, loader, optimizer, epoch):
    model.train()
    for batch_idx, (data, target) in enumerate(loader):
        optimizer.zero_grad()
        output = model(data)
        loss = F.nll_loss(output, target)
        loss.backward()
        optimizer.step()
        # ADD print("fc", model.fc.weight.grad.norm())
        if batch_idx % args.log_interval == 0:
            print(
                "Train Epoch: {} [{}/{}]\tLoss: {:.6f}".format(epoch, batch_idx * len(data), 96, loss.item())
            )


def test(model, loader):
    model.eval()
    test_loss, correct = 0, 0
    with torch.no_grad():
        for data, target in loader:
            output = model(data)
            test_loss += F.nll_loss(output, target, reduction="sum").item()
            correct += (
                output.argmax(dim=1, keepdim=True).eq(target.view_as(output.argmax(1, True))).sum().item()
            )
    print("\nTest set: Average loss: {:.4f}, Accuracy: {}/24\n".format(test_loss / 24, correct))
    # ADD print("correct", correct)


def run_train(args):
    torch.manual_seed(args.seed)
    train_set, test_set = make_data(args)
    model = Net(args.width)
    optimizer = torch.optim.Adadelta(model.parameters(), lr=args.lr)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.7)
    for epoch in range(1, args.epochs + 1):
        train(args, model, DataLoader(train_set, 16, shuffle=True), optimizer, epoch)
        test(model, DataLoader(test_set, 24))
        scheduler.step()
        # ADD print("lr", optimizer.param_groups[0]["lr"])


def run_info(args):
    print("parameters", sum(p.numel() for p in Net(args.width).parameters()))


def main(argv):
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=1)
    commands = parser.add_subparsers(dest="command", required=True)
    sub = commands.add_parser("train")
    sub.add_argument("--epochs", type=int, default=4)
    sub.add_argument("--lr", type=float, default=1.0)
    sub.add_argument("--log-interval", type=int, default=2)
    sub.set_defaults(func=run_train)
    commands.add_parser("info").set_defaults(func=run_info)
    for p in commands.choices.values():
        p.add_argument("--width", type=int, default=4)
    args = parser.parse_args(argv or ["train"])
    args.func(args)


if __name__ == "__main__":
    main(sys.argv[1:])
