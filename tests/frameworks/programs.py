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
    told = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        Watch.told.append(sorted(logs))

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
    torch.save({"weights": model.state_dict(), "steps": Watch.steps, "told": Watch.told}, os.path.join(out, "end.pt"))
    with open(os.path.join(out, "history.json"), "w") as file:
        json.dump(trainer.state.log_history, file)


if __name__ == "__main__":
    main(sys.argv[1])
"""
"""Three epochs of seven steps of two batches, the last of one: dropout, warm-up, clipping, evaluation in between."""
LIGHTNING = """\
import json
import os
import sys

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.set_num_threads(1)


class Watch(Callback):
    steps = 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.steps += 1


class Net(pl.LightningModule):
    def __init__(self, options):
        super().__init__()
        self.options = options
        self.layers = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Dropout(options["dropout"]), nn.Linear(12, 1))

    def forward(self, x):
        return self.layers(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = nn.functional.mse_loss(self(x), y)
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        loss = nn.functional.mse_loss(self(x), y)
        self.log("val_loss", loss)

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.options["lr"])
        if self.options["scheduler"] == "plateau":
            scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val_loss"}}
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 8))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def data(seed, count):
    x = torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(x, x.sum(1, keepdim=True).sin())


def main(out, options):
    pl.seed_everything(options["seed"], verbose=False)
    train = DataLoader(data(0, options["count"]), batch_size=5, shuffle=True, num_workers=options["workers"])
    val = DataLoader(data(1, 12), batch_size=4, num_workers=options["workers"])
    watch = Watch()
    best = ModelCheckpoint(monitor="val_loss", dirpath=os.path.join(out, "kept"), save_top_k=options["kept"])
    trainer = pl.Trainer(
        max_epochs=3, accelerator="cpu", accumulate_grad_batches=options["accumulate"],
        val_check_interval=options["val_check_interval"], gradient_clip_val=options["clip"], log_every_n_steps=2,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=out,
        callbacks=[watch, best, EarlyStopping("val_loss", patience=options["patience"])],
        logger=CSVLogger(out, name="csv", version=0, flush_logs_every_n_steps=4),
    )
    net = Net(options)
    trainer.fit(net, train, val)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    last = {name: value.clone() for name, value in net.state_dict().items()}
    again = trainer.validate(net, val, ckpt_path="best", verbose=False)
    torch.save({"last": last, "best": net.state_dict()}, os.path.join(out, "end.pt"))
    with open(os.path.join(out, "end.json"), "w") as file:
        json.dump([metrics, again, os.path.relpath(best.best_model_path, out), trainer.global_step, watch.steps], file)


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
"""
"""Epochs of batches, validated in their midst, with what a training of today has; the options come from outside."""
OPTIONS = {
    "seed": 1, "count": 40, "workers": 0, "dropout": 0.2, "lr": 1e-2, "scheduler": "warm-up", "accumulate": 2,
    "val_check_interval": 0.5, "clip": 0.5, "patience": 9, "kept": 1,
}  # fmt: skip

ACCELERATE = """\
import json
import os
import sys

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, Dataset


class Points(Dataset):
    def __init__(self, count, seed):
        generator = torch.Generator().manual_seed(seed)
        self.x = torch.randn(count, 8, generator=generator)
        self.y = self.x[:, :1] * self.x[:, 1:2]

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.x[index] + 0.01 * torch.randn(8), self.y[index]


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Linear(8, 16)
        self.drop = torch.nn.Dropout(0.2)
        self.outer = torch.nn.Linear(16, 1)

    def forward(self, x):
        return self.outer(self.drop(torch.tanh(self.inner(x))))


def evaluate(accelerator, model, loader):
    model.eval()
    total = 0.0
    with torch.no_grad():
        for x, y in loader:
            predicted, wanted = accelerator.gather_for_metrics((model(x), y))
            total += (predicted - wanted).pow(2).sum().item()
    model.train()
    return total


def main(out):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    model = Net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=40)
    train = DataLoader(Points(50, 1), batch_size=4, shuffle=True)
    test = DataLoader(Points(20, 2), batch_size=8)
    model, optimizer, scheduler, train, test = accelerator.prepare(model, optimizer, scheduler, train, test)
    history = []
    for epoch in range(4):
        for x, y in train:
            with accelerator.accumulate(model):
                loss = torch.nn.functional.mse_loss(model(x), y)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    norm = accelerator.clip_grad_norm_(model.parameters(), 0.5)
                    accelerator.log({"norm": norm.item()})
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
            history.append(loss.item())
            accelerator.print("loss", loss.item(), "lr", scheduler.get_last_lr()[0])
        accelerator.print("test", evaluate(accelerator, model, test), flush=True)
    os.makedirs(out, exist_ok=True)
    torch.save({"weights": accelerator.unwrap_model(model).state_dict()}, os.path.join(out, "end.pt"))
    with open(os.path.join(out, "history.json"), "w") as file:
        json.dump(history, file)


if __name__ == "__main__":
    main(sys.argv[1])
"""
"""Four epochs of thirteen batches in groups of two: noise drawn by the data set, dropout, clipping, evaluation."""

SFT = """\
import json
import os
import sys

import torch
from datasets import Dataset
from peft import LoraConfig
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast, TrainerCallback
from trl import SFTConfig, SFTTrainer

torch.set_num_threads(1)
WORDS = "the a cat dog sat ran on under mat log and but".split()


class Watch(TrainerCallback):
    steps = 0

    def on_step_end(self, args, state, control, **kwargs):
        Watch.steps += 1


class Own(SFTTrainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        return (loss, outputs) if return_outputs else loss


def main(out):
    torch.manual_seed(0)
    vocabulary = {word: number for number, word in enumerate(["<eos>", "<pad>", "<unk>", *WORDS])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<eos>", pad_token="<pad>", unk_token="<unk>"
    )
    texts = [" ".join(WORDS[(i * j + j) % len(WORDS)] for j in range(5 + i % 4)) for i in range(40)]
    data = Dataset.from_dict({"text": texts})
    config = GPT2Config(
        vocab_size=len(vocabulary), n_positions=16, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
    )
    model = GPT2LMHeadModel(config)
    args = SFTConfig(
        out, num_train_epochs=2, per_device_train_batch_size=4, gradient_accumulation_steps=2, learning_rate=1e-2,
        logging_steps=2, eval_strategy="steps", eval_steps=4, save_strategy="no", report_to=[], use_cpu=True, seed=3,
        max_length=16, bf16=False, warmup_steps=3,
    )
    lora = LoraConfig(
        r=2, lora_alpha=4, lora_dropout=0.1, target_modules=["c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM"
    )
    trainer = Own(
        model=model, args=args, train_dataset=data, eval_dataset=data.select(range(8)), processing_class=tokenizer,
        callbacks=[Watch()], peft_config=lora,
    )
    trainer.train()
    os.makedirs(out, exist_ok=True)
    torch.save({"weights": trainer.model.state_dict(), "steps": Watch.steps}, os.path.join(out, "end.pt"))
    with open(os.path.join(out, "history.json"), "w") as file:
        json.dump(trainer.state.log_history, file)


if __name__ == "__main__":
    main(sys.argv[1])
"""
"""Two epochs of five steps of two batches: LoRA with dropout, its own metrics, evaluation; nothing is downloaded."""

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
