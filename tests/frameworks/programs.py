"""Programs of frameworks' users: small, complete, and unaware of florlog."""

TRAINER = """\
import json
import os
import sys

import torch
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

torch.set_num_threads(1)
SIZE = 16


class Text(Dataset):
    def __init__(self, first, count):
        self.items = torch.arange(first, first + count * SIZE).square().remainder(61).reshape(count, SIZE)

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return {"input_ids": self.items[index], "labels": self.items[index]}


class Watch(TrainerCallback):
    steps = 0

    def on_step_end(self, args, state, control, **kwargs):
        Watch.steps += 1


class Model(GPT2LMHeadModel):
    def forward(self, input_ids=None, labels=None, **kwargs):
        return super().forward(input_ids=input_ids, labels=labels, **kwargs)


class Own(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        return (loss, outputs) if return_outputs else loss


def main(out):
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=61, n_positions=SIZE, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    model = Model(config)
    args = TrainingArguments(
        out, num_train_epochs=3, per_device_train_batch_size=4, per_device_eval_batch_size=8,
        gradient_accumulation_steps=2, learning_rate=1e-2, warmup_steps=5, lr_scheduler_type="cosine",
        max_grad_norm=0.5, logging_steps=2, eval_strategy="steps", eval_steps=4, save_strategy="no", report_to=[],
        use_cpu=True, seed=3,
    )
    trainer = Own(model=model, args=args, train_dataset=Text(0, 50), eval_dataset=Text(999, 12), callbacks=[Watch()])
    trainer.train()
    os.makedirs(out, exist_ok=True)
    torch.save({"weights": model.state_dict(), "steps": Watch.steps}, os.path.join(out, "end.pt"))
    with open(os.path.join(out, "history.json"), "w") as file:
        json.dump(trainer.state.log_history, file)


if __name__ == "__main__":
    main(sys.argv[1])
"""
"""Three epochs of seven steps of two batches, the last of one: dropout, warm-up, clipping, evaluation in between."""

SKORCH = """\
import json
import os
import sys

import numpy as np
import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, Checkpoint, EarlyStopping, EpochScoring, LRScheduler

torch.set_num_threads(1)


class Net(torch.nn.Module):
    def __init__(self, hidden=16):
        super().__init__()
        self.first = torch.nn.Linear(8, hidden)
        self.drop = torch.nn.Dropout(0.3)
        self.last = torch.nn.Linear(hidden, 3)

    def forward(self, X):
        hidden = self.drop(torch.relu(self.first(X)))
        return self.last(hidden)


class Watch(Callback):
    def on_train_begin(self, net, **kwargs):
        self.batches = 0

    def on_batch_end(self, net, training=False, **kwargs):
        self.batches += training


class Own(NeuralNetClassifier):
    def get_loss(self, y_pred, y_true, X=None, training=False):
        loss = super().get_loss(y_pred, y_true, X=X, training=training)
        return loss


def main(out):
    torch.manual_seed(0)
    np.random.seed(0)
    X = np.random.randn(120, 8).astype(np.float32)
    y = (X[:, 0] * 2 + X[:, 1] > 0).astype(np.int64) + (X[:, 2] > 0.5)
    os.makedirs(out, exist_ok=True)
    net = Own(
        Net, criterion=torch.nn.CrossEntropyLoss, max_epochs=4, lr=0.1, optimizer=torch.optim.SGD,
        optimizer__momentum=0.9, batch_size=16, iterator_train__shuffle=True, verbose=1,
        callbacks=[
            Watch(),
            EpochScoring("accuracy", on_train=True, lower_is_better=False, name="train_acc"),
            LRScheduler(torch.optim.lr_scheduler.StepLR, step_size=3, gamma=0.5, step_every="batch"),
            Checkpoint(dirname=out, monitor="valid_loss_best", load_best=True),
            EarlyStopping(patience=2),
        ],
    )
    net.fit(X, y)
    left = {"weights": net.module_.state_dict(), "batches": dict(net.callbacks_)["Watch"].batches}
    torch.save(left, os.path.join(out, "end.pt"))
    net.history.to_file(os.path.join(out, "end.json"))


if __name__ == "__main__":
    main(sys.argv[1])
"""
"""Epochs of six batches and two of validation: dropout, a rate per batch, the best weights reloaded."""

IGNITE = """\
import json
import os
import sys

import torch
from ignite.engine import Engine, Events
from ignite.handlers import EarlyStopping, ModelCheckpoint, PiecewiseLinear
from ignite.metrics import Accuracy, Loss, RunningAverage
from torch.utils.data import DataLoader, TensorDataset

torch.set_num_threads(1)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(8, 16)
        self.drop = torch.nn.Dropout(0.3)
        self.last = torch.nn.Linear(16, 3)

    def forward(self, x):
        hidden = self.drop(torch.relu(self.first(x)))
        return self.last(hidden)


def main(out):
    torch.manual_seed(0)
    x = torch.randn(120, 8)
    y = (x[:, 0] * 2 + x[:, 1] > 0).long() + (x[:, 2] > 0.5).long()
    train = DataLoader(TensorDataset(x[:96], y[:96]), batch_size=16, shuffle=True)
    valid = DataLoader(TensorDataset(x[96:], y[96:]), batch_size=16)
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    criterion = torch.nn.CrossEntropyLoss()
    log = []

    def train_step(engine, batch):
        model.train()
        optimizer.zero_grad()
        inputs, targets = batch
        loss = criterion(model(inputs), targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    def validation_step(engine, batch):
        model.eval()
        with torch.no_grad():
            return model(batch[0]), batch[1]

    trainer = Engine(train_step)
    evaluator = Engine(validation_step)
    Accuracy().attach(evaluator, "accuracy")
    Loss(criterion).attach(evaluator, "loss")
    RunningAverage(output_transform=lambda value: value).attach(trainer, "running")
    rates = [(0, 0.01), (6, 0.2), (30, 0.01)]
    trainer.add_event_handler(Events.ITERATION_STARTED, PiecewiseLinear(optimizer, "lr", rates))

    @trainer.on(Events.ITERATION_COMPLETED)
    def noted(engine):
        state = engine.state
        log.append([state.epoch, state.iteration, state.output, state.metrics["running"]])

    @trainer.on(Events.EPOCH_COMPLETED)
    def validate(engine):
        evaluator.run(valid)
        log.append([engine.state.epoch, dict(evaluator.state.metrics)])

    def score(engine):
        return -engine.state.metrics["loss"]

    stopping = EarlyStopping(patience=2, score_function=score, trainer=trainer)
    evaluator.add_event_handler(Events.COMPLETED, stopping)
    best = ModelCheckpoint(out, n_saved=1, require_empty=False, score_function=score)
    evaluator.add_event_handler(Events.COMPLETED, best, {"model": model})
    trainer.run(train, max_epochs=4)
    os.makedirs(out, exist_ok=True)
    left = {"metrics": trainer.state.metrics, "epoch": trainer.state.epoch, "iteration": trainer.state.iteration}
    torch.save({"weights": model.state_dict(), "left": left}, os.path.join(out, "end.pt"))
    with open(os.path.join(out, "end.json"), "w") as file:
        json.dump(log, file)


if __name__ == "__main__":
    main(sys.argv[1])
"""
"""Epochs of six batches, after each an evaluation by another engine, whose handlers stop the training."""

KERAS = """\
import json
import os
import sys

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
import torch

torch.set_num_threads(1)


class Net(keras.Model):
    def __init__(self):
        super().__init__()
        self.first = keras.layers.Dense(16, activation="relu")
        self.norm = keras.layers.BatchNormalization()
        self.drop = keras.layers.Dropout(0.3, seed=5)
        self.last = keras.layers.Dense(3)

    def call(self, x, training=False):
        hidden = self.drop(self.norm(self.first(x), training=training), training=training)
        return self.last(hidden)

    def train_step(self, data):
        logs = super().train_step(data)
        return logs


class Watch(keras.callbacks.Callback):
    batches = 0

    def on_train_batch_end(self, batch, logs=None):
        self.batches += 1


def main(out):
    keras.utils.set_random_seed(0)
    x = np.random.randn(120, 8).astype("float32")
    y = (x[:, 0] * 2 + x[:, 1] > 0).astype("int64") + (x[:, 2] > 0.5)
    model = Net()
    rate = keras.optimizers.schedules.CosineDecay(0.01, 48, warmup_target=0.05, warmup_steps=6)
    optimizer = keras.optimizers.Adam(rate, clipnorm=1.0, ema_momentum=0.9, use_ema=True)
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    watch = Watch()
    callbacks = [watch, keras.callbacks.EarlyStopping(patience=2, restore_best_weights=True)]
    history = model.fit(
        x[:96], y[:96], batch_size=16, epochs=4, verbose=2, validation_data=(x[96:], y[96:]), callbacks=callbacks
    )
    os.makedirs(out, exist_ok=True)
    weights = {str(at): torch.as_tensor(weight) for at, weight in enumerate(model.get_weights())}
    torch.save({"weights": weights, "batches": watch.batches}, os.path.join(out, "end.pt"))
    with open(os.path.join(out, "end.json"), "w") as file:
        json.dump({name: [float(value) for value in values] for name, values in history.history.items()}, file)


if __name__ == "__main__":
    main(sys.argv[1])
"""
"""Epochs of six steps and an evaluation: dropout of its own seed, warm-up, moving averages, the best weights again."""
