import logging

import torch
from torch.utils.data import DataLoader, TensorDataset
from tqdm import tqdm

torch.manual_seed(5)
logging.basicConfig(level=logging.INFO, format="%(message)s")
log = logging.getLogger(__name__)
x = torch.randn(48, 4)
loader = DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), batch_size=8, shuffle=True)
model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
opt = torch.optim.Adam(model.parameters(), lr=0.01)

for epoch in range(4):
    right = 0
    bar = tqdm(loader, desc=f"epoch {epoch}", leave=False)
    for batch, label in bar:
        scores = model(batch)
        loss = torch.nn.functional.cross_entropy(scores, label)
        opt.zero_grad()
        loss.backward()
        # ADD print("grad", model[0].weight.grad.norm())
        opt.step()
        right += (scores.argmax(1) == label).sum().item()
        bar.set_postfix(loss=loss.item(), right=right)
        # ADD bar.set_postfix(bias=model[2].bias.sum().item())
    bar.set_description(f"epoch {epoch} accuracy {right / 48:.3f}")
    # ADD log.info("norm %s", model[2].weight.norm().item())
    log.info("epoch %d right %d", epoch, right)
    tqdm.write(f"mean {model[0].bias.mean().item()}")
