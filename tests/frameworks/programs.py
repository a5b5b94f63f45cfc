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
