"""What recording adds to a training whose loop is in a framework: `florlog record` and plain `python`, in turns.

    python benchmarks/frameworks.py                          all frameworks that are installed, 5 rounds
    python benchmarks/frameworks.py lightning --rounds 9 --steps 2000

Each script trains a small model for many steps and times the call that trains, so neither import nor set-up is in the
figures.  *CPU* is that of the thread that trains, *all CPU* that of its process; an overhead is the ratio to the plain
run of the same round.  The final weights of both ways must be equal bit for bit.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

COMMON = """
import json, sys, time
import torch
from torch.utils.data import DataLoader, TensorDataset
torch.set_num_threads(1)
bytes(31 << 20)  # both ways train with the same threshold of malloc
torch.manual_seed(0)
steps = int(sys.argv[1])
inputs = torch.randn(2048, 256)
targets = torch.randint(0, 10, (2048,))
def network():
    return torch.nn.Sequential(torch.nn.Linear(256, 512), torch.nn.ReLU(), torch.nn.Linear(512, 512), torch.nn.ReLU(),
                               torch.nn.Linear(512, 10))
began = []
def begin():
    began[:] = time.perf_counter(), time.thread_time(), time.process_time()
def end(net, steps):
    took = [now - then for now, then in zip((time.perf_counter(), time.thread_time(), time.process_time()), began)]
    weights = torch.cat([p.detach().reshape(-1) for p in net.parameters()])
    with open(sys.argv[2], "w") as file:
        json.dump({"took": took, "steps": steps, "weights": float(weights.double().pow(2).sum())}, file)
"""
SCRIPTS = {
    "transformers": """
from transformers import PretrainedConfig, PreTrainedModel, Trainer, TrainingArguments
class Config(PretrainedConfig):
    model_type = "mlp"
class Model(PreTrainedModel):
    config_class = Config
    def __init__(self, config):
        super().__init__(config)
        self.net = network()
        self.post_init()
    def forward(self, inputs=None, labels=None):
        logits = self.net(inputs)
        return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}
class Data(torch.utils.data.Dataset):
    def __len__(self):
        return len(inputs)
    def __getitem__(self, index):
        return {"inputs": inputs[index], "labels": targets[index]}
model = Model(Config())
arguments = TrainingArguments(output_dir=sys.argv[2] + ".out", max_steps=steps, per_device_train_batch_size=128,
                              logging_steps=50, save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True)
trainer = Trainer(model=model, args=arguments, train_dataset=Data())
begin()
trainer.train()
end(model, steps)
""",
    "lightning": """
import lightning
class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = network()
    def training_step(self, batch, number):
        loss = torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        self.log("loss", loss)
        return loss
    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters())
module = Module()
loader = DataLoader(TensorDataset(inputs, targets), batch_size=128, shuffle=True)
trainer = lightning.Trainer(max_steps=steps, max_epochs=-1, accelerator="cpu", logger=False,
                            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
begin()
trainer.fit(module, loader)
end(module, steps)
""",
    "accelerate": """
from accelerate import Accelerator
accelerator = Accelerator(cpu=True)
model = network()
loader = DataLoader(TensorDataset(inputs, targets), batch_size=128, shuffle=True)
model, optimizer, loader = accelerator.prepare(model, torch.optim.AdamW(model.parameters()), loader)
begin()
for epoch in range(steps // 16):
    for x, y in loader:
        loss = torch.nn.functional.cross_entropy(model(x), y)
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
    accelerator.print(f"epoch {epoch} loss {loss.item():.4f}")
end(model, steps // 16 * 16)
""",
    "skorch": """
import skorch
net = skorch.NeuralNetClassifier(network, criterion=torch.nn.CrossEntropyLoss, optimizer=torch.optim.AdamW,
                                 max_epochs=steps // 16, batch_size=128, train_split=None, verbose=0)
begin()
net.fit(inputs, targets)
end(net.module_, steps // 16 * 16)
""",
    "ignite": """
from ignite.engine import Engine
model = network()
optimizer = torch.optim.AdamW(model.parameters())
loader = DataLoader(TensorDataset(inputs, targets), batch_size=128, shuffle=True)
def step(engine, batch):
    loss = torch.nn.functional.cross_entropy(model(batch[0]), batch[1])
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()
trainer = Engine(step)
begin()
trainer.run(loader, max_epochs=steps // 16)
end(model, steps // 16 * 16)
""",
}


def timed(framework: str, steps: int, *, recorded: bool) -> dict[str, float]:
    """One run: seconds of wall, of the thread's CPU and of the process's; steps; a number made of the weights."""
    with tempfile.TemporaryDirectory() as held:
        script = Path(held) / "train.py"
        script.write_text(COMMON + SCRIPTS[framework])
        way = ["-m", "florlog", "record"] if recorded else []
        found = Path(held) / "found.json"
        done = subprocess.run(
            [sys.executable, *way, script.name, str(steps), str(found)],
            cwd=held,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert not recorded or "florlog: loops: " in done.stderr, done.stderr
        said = json.loads(found.read_text())
        wall, thread, process = said["took"]
        return {
            "wall": wall,
            "CPU": thread,
            "all CPU": process,
            "steps": said["steps"],
            "weights": said["weights"],
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "frameworks", nargs="*", choices=[*SCRIPTS, []], help="default: all that are installed"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1600, help="of each training, about")
    options = parser.parse_args()
    order = random.Random(0)
    print("| framework | step | wall: median (all rounds) | CPU | all CPU |")
    print("|---|---|---|---|---|")
    for framework in options.frameworks or [name for name in SCRIPTS if importlib.util.find_spec(name)]:
        ratios: dict[str, list[float]] = {"wall": [], "CPU": [], "all CPU": []}
        steps = []
        for _ in range(options.rounds):
            ways = {
                recorded: timed(framework, options.steps, recorded=recorded)
                for recorded in order.sample([False, True], 2)
            }
            assert ways[True]["weights"] == ways[False]["weights"], "the recorded training has other weights"
            steps.append(ways[False]["wall"] / ways[False]["steps"])
            for name, found in ratios.items():
                found.append(ways[True][name] / ways[False][name] - 1)
        wall = ratios["wall"]
        print(
            f"| {framework} | {1e3 * statistics.median(steps):.2f} ms | {statistics.median(wall):+.1%} "
            f"({min(wall):+.1%} .. {max(wall):+.1%}) | {statistics.median(ratios['CPU']):+.1%} "
            f"| {statistics.median(ratios['all CPU']):+.1%} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
