import torch
import torch.nn as nn
import torch.nn.functional as F


def gram_matrix(input):
    a, b, c, d = input.size()
    features = input.view(a * b, c * d)
    return torch.mm(features, features.t()).div(a * b * c * d)


class ContentLoss(nn.Module):
    def __init__(self, target):
        super().__init__()
        self.target = target.detach()

    def forward(self, input):
        self.loss = F.mse_loss(input, self.target)
        return input


class StyleLoss(nn.Module):
    def __init__(self, target_feature):
        super().__init__()
        self.target = gram_matrix(target_feature).detach()

    def forward(self, input):
        self.loss = F.mse_loss(gram_matrix(input), self.target)
        return input


def build(cnn, style_img, content_img):
    content_losses, style_losses = [], []
    model = nn.Sequential()
    for i, layer in enumerate(cnn.children()):
        model.add_module(f"layer_{i}", layer)
        if isinstance(layer, nn.Conv2d):
            style_losses.append(StyleLoss(model(style_img)))
            model.add_module(f"style_loss_{i}", style_losses[-1])
            content_losses.append(ContentLoss(model(content_img)))
            model.add_module(f"content_loss_{i}", content_losses[-1])
    return model, style_losses, content_losses


def run_style_transfer(
    cnn, content_img, style_img, input_img, num_steps=30, style_weight=1000, content_weight=1
):
    print("Building the style transfer model..")
    model, style_losses, content_losses = build(cnn, style_img, content_img)
    input_img.requires_grad_(True)
    model.eval()
    model.requires_grad_(False)
    optimizer = torch.optim.LBFGS([input_img], max_iter=3)
    print("Optimizing..")
    run = [0]
    while run[0] <= num_steps:

        def closure():
            with torch.no_grad():
                input_img.clamp_(0, 1)
            optimizer.zero_grad()
            model(input_img)
            style_score, content_score = 0, 0
            for sl in style_losses:
                style_score += sl.loss
            for cl in content_losses:
                content_score += cl.loss
            loss = style_score * style_weight + content_score * content_weight
            loss.backward()
            # ADD print("pixel", input_img.mean().item())
            run[0] += 1
            if run[0] % 5 == 0:
                print("run {}:".format(run))
                print(
                    "Style Loss : {:4f} Content Loss: {:4f}".format(style_score.item(), content_score.item())
                )
            return style_score + content_score

        optimizer.step(closure)
        # ADD print("evaluations", run[0])

    with torch.no_grad():
        input_img.clamp_(0, 1)
    return input_img


torch.manual_seed(2)
cnn = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))
content_img, style_img = torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8)
output = run_style_transfer(cnn, content_img, style_img, content_img.clone())
print("output", output.sum().item())
