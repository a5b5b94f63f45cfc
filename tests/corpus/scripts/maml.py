import torch
from torch import nn
from torch.func import functional_call, grad, vmap


class SineTask:
    def __init__(self, gen):
        self.amp = 0.1 + 4.9 * torch.rand((), generator=gen)
        self.phase = 3.14 * torch.rand((), generator=gen)
        self.gen = gen

    def sample(self, k):
        x = 10 * torch.rand(k, 1, generator=self.gen) - 5
        return x, self.amp * torch.sin(x + self.phase)


class Net(nn.Module):
    def __init__(self, hidden=24):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(1, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1)
        )

    def forward(self, x):
        return self.layers(x)


class MAML:
    def __init__(self, model, inner_lr=0.01, meta_lr=1e-3, inner_steps=2, tasks=4, k=10, seed=0):
        self.model, self.inner_lr, self.inner_steps, self.tasks, self.k = (
            model,
            inner_lr,
            inner_steps,
            tasks,
            k,
        )
        self.meta_opt = torch.optim.Adam(model.parameters(), lr=meta_lr)
        self.gen = torch.Generator().manual_seed(seed)
        self.history = []

    def inner_loop(self, task):
        x, y = task.sample(self.k)
        params = dict(self.model.named_parameters())
        for step in range(self.inner_steps):
            loss = nn.functional.mse_loss(functional_call(self.model, params, (x,)), y)
            grads = torch.autograd.grad(loss, tuple(params.values()), create_graph=True)
            params = {n: p - self.inner_lr * g for (n, p), g in zip(params.items(), grads)}
            # ADD print("inner", step, loss.item())
        x, y = task.sample(self.k)
        return nn.functional.mse_loss(functional_call(self.model, params, (x,)), y)

    def train(self, iterations, report=25):
        epoch_loss = 0.0
        for iteration in range(1, iterations + 1):
            meta_loss = 0.0
            for _ in range(self.tasks):
                meta_loss += self.inner_loop(SineTask(self.gen))
            self.meta_opt.zero_grad()
            (meta_loss / self.tasks).backward()
            self.meta_opt.step()
            epoch_loss += meta_loss.item() / self.tasks
            # ADD print("meta", meta_loss.item())
            if iteration % report == 0:
                print("{}/{}. loss: {}".format(iteration, iterations, epoch_loss / report))
                self.history.append(epoch_loss / report)
                epoch_loss = 0.0


def per_sample_norms(model, x, y):
    params = {k: v.detach() for k, v in model.named_parameters()}

    def loss(p, xi, yi):
        return nn.functional.mse_loss(functional_call(model, p, (xi.unsqueeze(0),)), yi.unsqueeze(0))

    grads = vmap(grad(loss), in_dims=(None, 0, 0))(params, x, y)
    return torch.stack([g.flatten(1).norm(dim=1) for g in grads.values()]).norm(dim=0)


if __name__ == "__main__":
    torch.manual_seed(0)
    maml = MAML(Net())
    maml.train(200)
    x = torch.linspace(-5, 5, 8).unsqueeze(1)
    print("per-sample", per_sample_norms(maml.model, x, x.sin()).tolist())
    print(maml.history)
