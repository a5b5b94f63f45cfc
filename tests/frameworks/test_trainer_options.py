"""Options of Hugging Face's Trainer that change what it does with its loops: killed, resumed, asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.end_to_end.harness import Nursery
from tests.frameworks.programs import TRAINER
from tests.frameworks.recorded import Training, rows
from tests.frameworks.test_transformers import ended

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = pytest.mark.long

ARGUMENTS = 'save_strategy="no", report_to=[],'
CALLBACKS = "callbacks=[Watch()]"
STOPPING = "callbacks=[Watch(), __import__('transformers').EarlyStoppingCallback(2)]"
BEST = (
    'save_strategy="steps", save_steps=4, save_total_limit=1, load_best_model_at_end=True,'
    'metric_for_best_model="eval_loss", report_to=[],'
)
LENGTHS = '{"input_ids": self.items[index][: 8 + index % 9], "labels": self.items[index][: 8 + index % 9]}'
PADDED = """\
def padded(items):
    return {
        name: torch.nn.utils.rnn.pad_sequence([item[name] for item in items], batch_first=True, padding_value=value)
        for name, value in (("input_ids", 0), ("labels", -100))
    }


class Watch(TrainerCallback):"""
TOO_LARGE = """\
        if self.training and len(input_ids) > 2:
            raise RuntimeError("CUDA out of memory.")
        return super().forward"""


def given(*more: tuple[str, str]) -> str:
    """The program with parts replaced."""
    text = TRAINER
    for part, other in more:
        assert part in text
        text = text.replace(part, other, 1)
    return text


PROGRAMS = {
    "auto_find_batch_size": given(
        (ARGUMENTS, f"{ARGUMENTS} auto_find_batch_size=True,"), ("        return super().forward", TOO_LARGE)
    ),
    "load_best_model_at_end": given((ARGUMENTS, BEST), (CALLBACKS, STOPPING), ("1e-2", "9e-2")),
    "gradient_checkpointing": given((ARGUMENTS, f"{ARGUMENTS} gradient_checkpointing=True,")),
    "neftune": given((ARGUMENTS, f"{ARGUMENTS} neftune_noise_alpha=5.0,")),
    "group_by_length": given(
        (ARGUMENTS, f'{ARGUMENTS} train_sampling_strategy="group_by_length",'),
        ('{"input_ids": self.items[index], "labels": self.items[index]}', LENGTHS),
        ("class Watch(TrainerCallback):", PADDED),
        (CALLBACKS, f"{CALLBACKS}, data_collator=padded"),
    ),
    "dataloader_num_workers": given((ARGUMENTS, f"{ARGUMENTS} dataloader_num_workers=2,")),
}
ADDED = "        Watch.steps += 1", 'Watch.steps, kwargs["lr_scheduler"].get_last_lr()[0]'


@pytest.fixture(scope="module", params=PROGRAMS)
def training(
    trainers: Nursery, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Training:
    made = Training(trainers, PROGRAMS[request.param], tmp_path_factory.mktemp("recorded"), ended)
    made.record()
    return made


def test_the_training_is_not_changed(training: Training) -> None:
    assert training.is_as_python_left_it(training.directory / "recorded")


@pytest.mark.crash
@pytest.mark.parametrize("case", range(4))
def test_killed_at_any_instant_it_goes_on_bit_exactly(training: Training, tmp_path: Path, case: int) -> None:
    out = training.kill_and_resume(tmp_path, case, seconds=(0.3, 1.5), dense=(0.5, 5.0))
    assert training.is_as_python_left_it(out)


def test_a_statement_is_asked_afterwards(training: Training, tmp_path: Path) -> None:
    # The attempts that fail for lack of memory are loops of their own: the third one is `epoch#3`.
    tried = training.program == PROGRAMS["auto_find_batch_size"]
    where = "step == 3" if tried else "epoch == 1 and step == 3"
    one, every, printed = training.ask(tmp_path, ADDED, where)
    assert rows(every["values"]) == printed
    at = [
        value
        for value in every["values"]
        if value["path"].get("step") == 3 and (tried or value["path"]["epoch"] == 1)
    ]
    assert rows(one["values"]) == rows(at) != []
    assert {value["trust"] for value in [*one["values"], *every["values"]]} == {"PROVEN"}
