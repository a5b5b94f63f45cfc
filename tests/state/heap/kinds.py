"""Kinds of state that a program can have, each as a small module: set-up, one step, and what a step observes."""

from __future__ import annotations

from dataclasses import dataclass

PRELUDE = """
import collections, dataclasses, enum, functools, io, itertools, queue, random, threading, weakref
import numpy as np
import torch
from torch import nn
"""


@dataclass(frozen=True)
class Kind:
    """``setup`` runs once; ``step`` changes state, with the step's number in ``i``; ``seen`` is an expression."""

    name: str
    setup: str
    step: str
    seen: str


KINDS = [
    Kind("counter in a global", "n = 0", "n += 1", "n"),
    Kind("list that grows", "xs = []", "xs.append(i)", "list(xs)"),
    Kind("two names for one list", "a = [0]; b = a", "a.append(i)", "(list(b), a is b)"),
    Kind(
        "a name that moves to another object",
        "a = [1]; b = [2]; c = a",
        "c = b if i == 1 else c; c.append(i)",
        "(list(a), list(b), c is b)",
    ),
    Kind(
        "a name that is deleted", "a = 1", "globals().pop('a', None) if i == 1 else None", "'a' in globals()"
    ),
    Kind("class attribute", "class C:\n    n = 0", "C.n += 1", "C.n"),
    Kind("class attribute made later", "class C: pass", "C.n = getattr(C, 'n', 0) + 1", "C.n"),
    Kind(
        "class attribute deleted",
        "class C:\n    n = 0",
        "(delattr(C, 'n') if i == 1 else None)",
        "hasattr(C, 'n')",
    ),
    Kind("class attribute of a base", "class A:\n    n = 0\nclass B(A): pass\nb = B()", "A.n += 1", "b.n"),
    Kind("metaclass", "class M(type):\n    n = 0\nclass C(metaclass=M): pass", "M.n += 1", "C.n"),
    Kind(
        "singleton",
        "class S:\n    one = None\n    def __new__(cls):\n        if cls.one is None:\n            cls.one = object.__new__(cls); cls.one.n = 0\n        return cls.one",
        "S().n += 1",
        "S().n",
    ),
    Kind(
        "descriptor",
        "class D:\n    def __init__(self): self.n = 0\n    def __get__(self, o, t=None):\n        self.n += 1; return self.n\nclass C:\n    d = D()\nc = C()",
        "c.d",
        "c.d",
    ),
    Kind(
        "property with a closure",
        "def make():\n    n = [0]\n    def get(self): n[0] += 1; return n[0]\n    return property(get)\nclass C:\n    p = make()\nc = C()",
        "c.p",
        "c.p",
    ),
    Kind(
        "static list",
        "class C:\n    seen = []\n    @staticmethod\n    def add(x): C.seen.append(x)",
        "C.add(i)",
        "list(C.seen)",
    ),
    Kind(
        "enum member", "class E(enum.Enum):\n    A = 1", "E.A.hits = getattr(E.A, 'hits', 0) + 1", "E.A.hits"
    ),
    Kind(
        "slots",
        "class C:\n    __slots__ = ('n', '__m')\n    def __init__(self): self.n = 0\nc = C()",
        "c.n += 1",
        "c.n",
    ),
    Kind(
        "dataclass, frozen",
        "@dataclasses.dataclass(frozen=True)\nclass P:\n    xs: list\np = P([])",
        "p.xs.append(i)",
        "list(p.xs)",
    ),
    Kind(
        "named tuple with a list",
        "P = collections.namedtuple('P', 'xs n')\np = P([], 0)",
        "p.xs.append(i); p = p._replace(n=p.n + 1)",
        "(list(p.xs), p.n)",
    ),
    Kind("function attribute", "def f(): f.n += 1\nf.n = 0", "f()", "f.n"),
    Kind("mutable default", "def f(x, seen=[]):\n    seen.append(x); return list(seen)", "f(i)", "f(9)"),
    Kind("keyword default", "def f(*, seen={}):\n    seen[len(seen)] = 1; return len(seen)", "f()", "f()"),
    Kind(
        "closure",
        "def make():\n    n = 0\n    def f():\n        nonlocal n\n        n += 1; return n\n    return f\nf = make()",
        "f()",
        "f()",
    ),
    Kind(
        "two closures of one cell",
        "def make():\n    n = 0\n    def up():\n        nonlocal n\n        n += 1\n    return up, lambda: n\nup, get = make()",
        "up()",
        "get()",
    ),
    Kind(
        "decorated function",
        "def count(f):\n    @functools.wraps(f)\n    def g(*a):\n        g.calls += 1; return f(*a)\n    g.calls = 0\n    return g\n@count\ndef f(x): return x",
        "f(1)",
        "f.calls",
    ),
    Kind(
        "partial with a list",
        "def f(xs, x): xs.append(x); return list(xs)\ng = functools.partial(f, [])",
        "g(i)",
        "g(7)",
    ),
    Kind(
        "partial that is replaced",
        "def f(k, x): return k + x\ng = functools.partial(f, 0)",
        "g = functools.partial(f, i)",
        "g(1)",
    ),
    Kind(
        "bound method",
        "class C:\n    n = 0\n    def up(self): self.n += 1; return self.n\nup = C().up",
        "up()",
        "up()",
    ),
    Kind("builtin bound method", "xs = []\nadd = xs.append", "add(i)", "list(xs)"),
    Kind(
        "function made in a step",
        "fs = []\ndef make(k):\n    def f(): return k\n    return f",
        "fs.append(make(i))",
        "[f() for f in fs]",
    ),
    Kind(
        "lambda made in a step",
        "f = lambda: -1\ndef make(k): return lambda: k * 10",
        "f = make(i) if i % 2 else f",
        "f()",
    ),
    Kind(
        "object of a class made in a step",
        "class C:\n    def __init__(self, k): self.k = k\ncs = []",
        "cs.append(C(i))",
        "[c.k for c in cs]",
    ),
    Kind("a cycle", "class N: pass\na = N(); a.me = a; a.n = 0", "a.me.n += 1", "(a.n, a.me is a)"),
    Kind("linked list", "head = None", "head = [i, head]", "repr(head)"),
    Kind(
        "deep linked list",
        "head = None\nfor k in range(3000): head = (k, head)",
        "head = (i, head)",
        "head[0], head[1][0]",
    ),
    Kind(
        "list subclass", "class L(list):\n    n = 0\nxs = L()", "xs.append(i); xs.n += 1", "(list(xs), xs.n)"
    ),
    Kind(
        "dict subclass", "class D(dict):\n    pass\nd = D(); d.n = 0", "d[i] = i; d.n += 1", "(dict(d), d.n)"
    ),
    Kind(
        "set subclass", "class S(set):\n    pass\ns = S(); s.n = 0", "s.add(i); s.n += 1", "(sorted(s), s.n)"
    ),
    Kind(
        "ordered dict that is a dataclass",
        "@dataclasses.dataclass\nclass O(collections.OrderedDict):\n    loss: object = None\n    def __post_init__(self): self['loss'] = self.loss\nout = None",
        "out = O(loss=torch.ones(2) * i)",
        "(out['loss'].tolist(), out.loss.tolist(), out.loss is out['loss'])",
    ),
    Kind("defaultdict", "d = collections.defaultdict(list)", "d[i % 2].append(i)", "(dict(d), d['new'])"),
    Kind("Counter", "c = collections.Counter()", "c[i % 2] += 1", "dict(c)"),
    Kind(
        "OrderedDict in order",
        "d = collections.OrderedDict(a=1, b=2)",
        "d.move_to_end('a' if i % 2 else 'b')",
        "list(d)",
    ),
    Kind(
        "ChainMap",
        "m = collections.ChainMap({}, {'a': 0})",
        "m['a'] += 1; m = m.new_child() if i == 2 else m",
        "(m['a'], len(m.maps))",
    ),
    Kind("deque", "q = collections.deque(maxlen=3)", "q.append(i)", "(list(q), q.maxlen)"),
    Kind("heap of tuples", "import heapq\nh = []", "heapq.heappush(h, (-i, [i]))", "repr(h)"),
    Kind(
        "queue",
        "q = queue.Queue()",
        "q.put(i); q.get() if i % 3 == 2 else None",
        "(q.qsize(), list(q.queue))",
    ),
    Kind("simple queue", "q = queue.SimpleQueue()", "q.put(i)", "q.qsize()"),
    Kind("BytesIO", "b = io.BytesIO()", "b.write(bytes([i]))", "(b.getvalue(), b.tell())"),
    Kind("StringIO", "b = io.StringIO()", "b.write(str(i))", "b.getvalue()"),
    Kind("bytearray", "b = bytearray()", "b.append(i)", "bytes(b)"),
    Kind("thread local", "t = threading.local(); t.n = 0", "t.n += 1", "t.n"),
    Kind("event flag", "e = threading.Event()", "e.set() if i == 1 else None", "e.is_set()"),
    Kind(
        "lock in an object",
        "class C:\n    def __init__(self): self.lock = threading.Lock(); self.n = 0\nc = C()",
        "with c.lock: c.n += 1",
        "c.n",
    ),
    Kind(
        "weak key dictionary",
        "class C: pass\nkeys = [C(), C()]\nw = weakref.WeakKeyDictionary()",
        "w[keys[i % 2]] = i",
        "[w.get(k) for k in keys]",
    ),
    Kind(
        "weak value dictionary",
        "class C: pass\nkeys = [C(), C()]\nw = weakref.WeakValueDictionary()",
        "w[i] = keys[i % 2]",
        "[(k, keys.index(v)) for k, v in sorted(w.items())]",
    ),
    Kind(
        "weak set",
        "class C: pass\nkeys = [C(), C()]\nw = weakref.WeakSet()",
        "w.add(keys[i % 2])",
        "[k in w for k in keys]",
    ),
    Kind(
        "weak reference",
        "class C: pass\na, b = C(), C()\nr = weakref.ref(a)",
        "r = weakref.ref(b) if i == 1 else r",
        "(r() is a, r() is b)",
    ),
    Kind("itertools.count", "c = itertools.count(5)", "next(c)", "next(c)"),
    Kind("itertools.cycle", "c = itertools.cycle([1, 2, 3])", "next(c)", "next(c)"),
    Kind("islice of an iterator", "c = itertools.islice(iter(range(100)), 50)", "next(c)", "next(c)"),
    Kind(
        "iterator over a list",
        "xs = list(range(50)); it = iter(xs)",
        "next(it); xs.append(i)",
        "(next(it), len(xs))",
    ),
    Kind("enumerate", "e = enumerate(iter(range(50)))", "next(e)", "next(e)"),
    Kind(
        "zip of iterators",
        "z = zip(iter(range(50)), iter('abcdefghijklmnopqrstuvwxyz'))",
        "next(z)",
        "next(z)",
    ),
    Kind(
        "counter in an object",
        "class C:\n    def __init__(self): self.c = itertools.count()\nc = C()",
        "next(c.c)",
        "next(c.c)",
    ),
    Kind("random.Random", "r = random.Random(3)", "r.random()", "r.random()"),
    Kind(
        "random.Random subclass",
        "class R(random.Random):\n    n = 0\nr = R(3)",
        "r.random(); r.n += 1",
        "(r.random(), r.n)",
    ),
    Kind(
        "torch generator",
        "g = torch.Generator().manual_seed(3)",
        "torch.rand(1, generator=g)",
        "torch.rand(1, generator=g).item()",
    ),
    Kind("numpy generator", "g = np.random.default_rng(3)", "g.random()", "g.random()"),
    Kind("numpy RandomState", "g = np.random.RandomState(3)", "g.rand()", "g.rand()"),
    Kind(
        "generator made in a step",
        "gs = []",
        "gs.append(np.random.default_rng(i))",
        "[g.random() for g in gs]",
    ),
    Kind("tensor in a global", "t = torch.zeros(3)", "t += i", "t.tolist()"),
    Kind("tensor that is replaced", "t = torch.zeros(3)", "t = t + i", "t.tolist()"),
    Kind("tensor that grows", "t = torch.zeros(0)", "t = torch.cat([t, torch.ones(1) * i])", "t.tolist()"),
    Kind("view", "t = torch.zeros(4); v = t[1:3]", "v += i; t += 1", "(t.tolist(), v.tolist())"),
    Kind(
        "a view that moves",
        "t = torch.zeros(4); v = t[0:1]",
        "v = t[2:3] if i == 1 else v; v += 1; t *= 2",
        "(t.tolist(), v.tolist())",
    ),
    Kind("transposed view", "t = torch.arange(6.).reshape(2, 3); v = t.T", "v[0, 1] += i", "t.tolist()"),
    Kind(
        "an alias made in a step",
        "h = torch.zeros(2); st = {'h': torch.zeros(2)}",
        "st['h'] = h if i == 1 else st['h']; h += 1",
        "st['h'].tolist()",
    ),
    Kind(
        "tensor and array of one memory",
        "t = torch.zeros(3); a = t.numpy()",
        "a += i; t *= 2",
        "(t.tolist(), a.tolist())",
    ),
    Kind(
        "array and tensor of one memory",
        "a = np.zeros(3); t = torch.from_numpy(a)",
        "t += i; a *= 2",
        "(t.tolist(), a.tolist())",
    ),
    Kind("array view", "a = np.zeros((2, 3)); v = a[:, 1]", "v += i; a += 1", "(a.tolist(), v.tolist())"),
    Kind(
        "array view that moves",
        "a = np.zeros(4); v = a[:2]",
        "v = a[2:] if i == 1 else v; v += 1",
        "(a.tolist(), v.tolist())",
    ),
    Kind("large array that is written", "a = np.zeros(300_000)", "a[i * 7919] = 1", "a.sum()"),
    Kind("large tensor that is written", "t = torch.zeros(400_000)", "t[i * 7919] = 1", "t.sum().item()"),
    Kind("array of objects", "a = np.array([None, [1], 'x'], dtype=object)", "a[1].append(i)", "a.tolist()"),
    Kind(
        "numpy subclass",
        "class A(np.ndarray): pass\na = np.zeros(3).view(A); a.n = 0",
        "a += 1; a.n += 1",
        "(a.tolist(), a.n)",
    ),
    Kind("bfloat16", "t = torch.zeros(3, dtype=torch.bfloat16)", "t += i", "t.tolist()"),
    Kind(
        "bare parameter",
        "p = nn.Parameter(torch.zeros(2)); o = torch.optim.SGD([p], 0.1)",
        "((p - 3) ** 2).sum().backward(); o.step(); o.zero_grad()",
        "p.tolist()",
    ),
    Kind(
        "list of parameters",
        "ps = [nn.Parameter(torch.zeros(2)) for _ in range(2)]; o = torch.optim.Adam(ps, 0.1)",
        "sum(((p - k) ** 2).sum() for k, p in enumerate(ps)).backward(); o.step(); o.zero_grad()",
        "[p.tolist() for p in ps]",
    ),
    Kind(
        "gradients that are kept",
        "p = nn.Parameter(torch.zeros(2))",
        "(p * i).sum().backward()",
        "p.grad.tolist()",
    ),
    Kind(
        "gradient in a flat buffer",
        "p = nn.Parameter(torch.zeros(2)); flat = torch.zeros(4)",
        "p.grad = flat[2:]; (p * i).sum().backward(); flat += 1",
        "(p.grad.tolist(), flat.tolist())",
    ),
    Kind(
        "module and Adam",
        "torch.manual_seed(0); m = nn.Linear(3, 2); o = torch.optim.Adam(m.parameters(), 0.1)",
        "m(torch.ones(3)).sum().backward(); o.step(); o.zero_grad()",
        "m.weight.tolist()",
    ),
    Kind("dropout rate", "m = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))", "m[1].p *= 0.5", "m[1].p"),
    Kind(
        "batch norm momentum and buffers",
        "m = nn.BatchNorm1d(2)",
        "m.momentum *= 0.5; m(torch.arange(6.).reshape(3, 2) * i)",
        "(m.momentum, m.running_mean.tolist())",
    ),
    Kind(
        "train and eval",
        "m = nn.Sequential(nn.Dropout(0.5))",
        "m.train(i % 2 == 0)",
        "(m.training, m[0].training)",
    ),
    Kind(
        "frozen parameters",
        "m = nn.Linear(2, 2)",
        "m.weight.requires_grad_(i % 2 == 0)",
        "m.weight.requires_grad",
    ),
    Kind(
        "a new head",
        "torch.manual_seed(0); m = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)); o = torch.optim.Adam(m.parameters(), 0.1)",
        "if i == 1:\n    m[1] = nn.Linear(2, 4); o = torch.optim.Adam(m.parameters(), 0.1)\nm(torch.ones(2)).sum().backward(); o.step(); o.zero_grad()",
        "(m[1].weight.shape, m[1].weight.tolist())",
    ),
    Kind(
        "blocks that grow",
        "torch.manual_seed(0); m = nn.ModuleList([nn.Linear(2, 2)])",
        "torch.manual_seed(i); m.append(nn.Linear(2, 2))",
        "[b.weight.tolist() for b in m]",
    ),
    Kind(
        "blocks that are pruned",
        "torch.manual_seed(0); m = nn.ModuleList([nn.Linear(2, 2) for _ in range(8)])",
        "del m[0]",
        "[b.weight.tolist() for b in m]",
    ),
    Kind(
        "parameter group added",
        "torch.manual_seed(0); a, b = nn.Linear(2, 2), nn.Linear(2, 2); o = torch.optim.Adam(a.parameters(), 0.1)",
        "if i == 1: o.add_param_group({'params': list(b.parameters()), 'lr': 0.01})\nb(a(torch.ones(2))).sum().backward(); o.step(); o.zero_grad(); b.zero_grad()",
        "(a.weight.tolist(), b.weight.tolist(), len(o.param_groups))",
    ),
    Kind(
        "weights tied in a step",
        "torch.manual_seed(0); a, b = nn.Linear(2, 2), nn.Linear(2, 2)",
        "if i == 1: b.weight = a.weight\nwith torch.no_grad(): a.weight += 1",
        "(b.weight.tolist(), a.weight is b.weight)",
    ),
    Kind(
        "optimizer subclass",
        "class O(torch.optim.SGD):\n    taken = 0\n    def step(self, closure=None):\n        self.taken += 1; return super().step(closure)\nm = nn.Linear(2, 2); o = O(m.parameters(), 0.1)",
        "m(torch.ones(2)).sum().backward(); o.step()",
        "o.taken",
    ),
    Kind(
        "optimizer around an optimizer",
        "class W:\n    def __init__(self, o): self.o = o; self.slow = {}\n    def step(self):\n        self.o.step()\n        for g in self.o.param_groups:\n            for p in g['params']: self.slow.setdefault(p, torch.zeros_like(p)).lerp_(p.detach(), 0.5)\ntorch.manual_seed(0); m = nn.Linear(2, 2); w = W(torch.optim.SGD(m.parameters(), 0.1))",
        "m(torch.ones(2)).sum().backward(); w.step()",
        "[t.tolist() for t in w.slow.values()]",
    ),
    Kind(
        "scheduler",
        "m = nn.Linear(2, 2); o = torch.optim.SGD(m.parameters(), 0.1); s = torch.optim.lr_scheduler.StepLR(o, 2)",
        "o.step(); s.step()",
        "(o.param_groups[0]['lr'], s.last_epoch)",
    ),
    Kind(
        "scheduler with a function",
        "m = nn.Linear(2, 2); o = torch.optim.SGD(m.parameters(), 0.1); s = torch.optim.lr_scheduler.LambdaLR(o, lambda e: 0.9 ** e)",
        "o.step(); s.step()",
        "o.param_groups[0]['lr']",
    ),
    Kind(
        "hook with a closure",
        "calls = []\nm = nn.Linear(2, 2)\ndef hook(mod, a, b): calls.append(float(b.sum()))\nm.register_forward_hook(hook)",
        "m(torch.zeros(2))",
        "len(calls)",
    ),
    Kind(
        "hook registered in a step",
        "m = nn.Linear(2, 2); n = [0]\ndef hook(mod, a, b): n[0] += 1",
        "if i == 1: m.register_forward_hook(hook)\nm(torch.zeros(2))",
        "n[0]",
    ),
    Kind(
        "hook removed in a step",
        "m = nn.Linear(2, 2); n = [0]\ndef hook(mod, a, b): n[0] += 1\nh = m.register_forward_hook(hook)",
        "if i == 1: h.remove()\nm(torch.zeros(2))",
        "n[0]",
    ),
    Kind(
        "sampler with its own epoch",
        "class S(torch.utils.data.Sampler):\n    epoch = 0\n    def __init__(self): pass\n    def __len__(self): return 4\n    def __iter__(self):\n        yield from torch.randperm(4, generator=torch.Generator().manual_seed(self.epoch)).tolist()\n        self.epoch += 1\nd = torch.utils.data.DataLoader(torch.arange(4.), 2, sampler=S())",
        "[x.tolist() for x in d]",
        "[x.tolist() for x in d]",
    ),
    Kind(
        "sampler weights",
        "s = torch.utils.data.WeightedRandomSampler(torch.ones(3), 4)",
        "s.weights[i % 3] += 1",
        "s.weights.tolist()",
    ),
    Kind(
        "data set that changes",
        "class D(torch.utils.data.Dataset):\n    def __init__(self): self.k = 0\n    def __len__(self): return 2\n    def __getitem__(self, j): return j + self.k\nd = torch.utils.data.DataLoader(D(), 1)",
        "d.dataset.k += 1",
        "[x.item() for x in d]",
    ),
    Kind(
        "best state dict",
        "m = nn.Linear(2, 2); best = None",
        "with torch.no_grad(): m.weight += 1\nbest = {'model': m.state_dict(), 'n': i} if best is None else best",
        "(best['n'], best['model']['weight'].tolist() == m.weight.tolist())",
    ),
    Kind(
        "best state dict, copied",
        "import copy\nm = nn.Linear(2, 2); best = None\nnn.init.zeros_(m.weight)",
        "with torch.no_grad(): m.weight += 1\nbest = {'model': copy.deepcopy(m.state_dict())} if i == 1 else best",
        "best and best['model']['weight'].tolist()",
    ),
    Kind(
        "a model made in each step",
        "m = None",
        "torch.manual_seed(i); m = nn.Linear(2, 2)",
        "m.weight.tolist()",
    ),
    Kind("sparse tensor", "t = torch.eye(3).to_sparse()", "t = t * 2", "t.to_dense().tolist()"),
    Kind(
        "tensor subclass",
        "class T(torch.Tensor): pass\nt = torch.zeros(2).as_subclass(T); t.n = 0",
        "t += 1; t.n += 1",
        "(t.tolist(), t.n, type(t).__name__)",
    ),
    Kind(
        "date and path",
        "import datetime, pathlib\nd = datetime.date(2026, 1, 1)\np = pathlib.Path('a')",
        "d += datetime.timedelta(1); p = p / str(i)",
        "(str(d), str(p))",
    ),
    Kind(
        "compiled pattern",
        "import re\nr = re.compile('a')",
        "r = re.compile('b') if i == 1 else r",
        "r.pattern",
    ),
    Kind("int subclass", "class I(int): pass\nn = I(0)", "n = I(n + 1)", "(int(n), type(n).__name__)"),
    Kind("exception that was kept", "last = None", "last = ValueError(i, 'x')", "last.args"),
    Kind("types.SimpleNamespace", "import types\ns = types.SimpleNamespace(n=0)", "s.n += 1", "s.n"),
    Kind(
        "fractions and decimals",
        "import fractions, decimal\nf = fractions.Fraction(0); d = decimal.Decimal(0)",
        "f += fractions.Fraction(1, 3); d += decimal.Decimal('0.1')",
        "(str(f), str(d))",
    ),
    Kind(
        "set of objects",
        "class C:\n    def __init__(self, k): self.k = k\ns = set()",
        "s.add(C(i))",
        "sorted(c.k for c in s)",
    ),
    Kind(
        "dict keyed by objects",
        "class C: pass\na, b = C(), C(); d = {a: 0}",
        "d[b if i % 2 else a] = i",
        "(d.get(a), d.get(b))",
    ),
    Kind("dict keyed by tuples", "d = {}", "d[(i, 'x')] = [i]", "repr(d)"),
    Kind("mapping proxy of a class", "class C:\n    n = 0\nview = vars(C)", "C.n += 1", "view['n']"),
]
