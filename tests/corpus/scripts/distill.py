import torch
import torch.nn as nn
import torch.optim as optim
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset


def make(width):
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Dropout(0.1), nn.Linear(width, 10))


def train(model, train_loader, epochs, learning_rate):
    criterion = nn.CrossEntropyLoss()
    optimizer = optim.Adam(model.parameters(), lr=learning_rate)
    model.train()
    for epoch in range(epochs):
        running_loss = 0.0
        for inputs, labels in train_loader:
            optimizer.zero_grad()
            outputs = model(inputs)
            loss = criterion(outputs, labels)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
        print(f"Epoch {epoch + 1}/{epochs}, Loss: {running_loss / len(train_loader)}")


def train_knowledge_distillation(teacher, student, train_loader, epochs, learning_rate, T, soft_w, ce_w):
    ce_loss = nn.CrossEntropyLoss()
    optimizer = optim.Adam(student.parameters(), lr=learning_rate)
    teacher.eval()
    student.train()
    for epoch in range(epochs):
        running_loss = 0.0
        for inputs, labels in train_loader:
            optimizer.zero_grad()
            with torch.no_grad():
                teacher_logits = teacher(inputs)
            student_logits = student(inputs)
            soft_targets = nn.functional.softmax(teacher_logits / T, dim=-1)
            soft_prob = nn.functional.log_softmax(student_logits / T, dim=-1)
            soft_loss = (
                torch.sum(soft_targets * (soft_targets.log() - soft_prob)) / soft_prob.size()[0] * (T**2)
            )
            label_loss = ce_loss(student_logits, labels)
            loss = soft_w * soft_loss + ce_w * label_loss
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
            # ADD print("soft", soft_loss.item(), "hard", label_loss.item())
        # ADD print("student", student[0].weight.norm())
        print(f"Epoch {epoch + 1}/{epochs}, Loss: {running_loss / len(train_loader)}")


def test(model, loader):
    model.eval()
    correct = total = 0
    with torch.no_grad():
        for inputs, labels in loader:
            _, predicted = torch.max(model(inputs).data, 1)
            total += labels.size(0)
            correct += (predicted == labels).sum().item()
    accuracy = 100 * correct / total
    print(f"Test Accuracy: {accuracy:.2f}%")
    return accuracy


x, y = load_digits(return_X_y=True)
x, y = torch.tensor(x[:300], dtype=torch.float32) / 16, torch.tensor(y[:300])
train_loader = DataLoader(TensorDataset(x[:240], y[:240]), batch_size=48, shuffle=True)
test_loader = DataLoader(TensorDataset(x[240:], y[240:]), batch_size=60)
torch.manual_seed(42)
nn_deep = make(32)
train(nn_deep, train_loader, epochs=3, learning_rate=0.01)
test_accuracy_deep = test(nn_deep, test_loader)
torch.manual_seed(42)
nn_light = make(8)
train_knowledge_distillation(nn_deep, nn_light, train_loader, 4, 0.01, T=2, soft_w=0.25, ce_w=0.75)
print("Student accuracy with teacher:", test(nn_light, test_loader), "teacher:", test_accuracy_deep)
