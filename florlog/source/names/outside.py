"""What a program can read that is neither its state nor its data: the clock, entropy, files, memory addresses.

This is the one table of such *outside sources*.  Source analysis asks it for the names in a program's text
(`florlog.source.skip.noise`, `florlog.source.skip.steadiness`), and a replay for the functions that an added statement
really calls (`florlog.programs.watching`).  A seeded generator is state, and is not here.

An entry counts for a name and for all below it, unless a longer entry says otherwise.  "" means harmless.
"""

from __future__ import annotations

from dataclasses import dataclass

CLOCK = "the clock"
ENTROPY = "the system's random numbers"
PROCESS = "the process and the machine"
THREADS = "other threads or processes"
FILES = "files"
ENVIRONMENT = "the environment"
NETWORK = "the network"
HASHES = "hashes of text, or the order of a set"
IDENTITY = "addresses of objects"
MEMORY = "counters of memory and time"

INPUTS = frozenset({FILES, ENVIRONMENT, NETWORK})
"""What a set-up reads once.  Its results are in the images, so it is noise only where an iteration may read it."""
DIRECT = frozenset({HASHES, IDENTITY, PROCESS})
"""What libraries read for their own book-keeping: it counts where the program's own code reads it."""

_SOURCES = {
    CLOCK: "time datetime.datetime.now datetime.datetime.utcnow datetime.datetime.today datetime.date.today "
    "torch.cuda.Event.elapsed_time torch.utils.benchmark timeit",
    "": "time.sleep time.struct_time time.mktime time.gmtime time.strptime time.tzname socket.AF_INET "
    "os.environ.__setitem__ platform.python_version numpy.random.seed random.seed torch.manual_seed uuid.UUID "
    "uuid.uuid3 uuid.uuid5 secrets.compare_digest gc.collect gc.disable gc.enable gc.freeze",
    ENTROPY: "os.urandom os.getrandom random.SystemRandom secrets uuid.uuid1 uuid.uuid4 torch.seed torch.initial_seed "
    "torch.Generator.seed torch.Generator.initial_seed torch.cuda.seed torch.cuda.initial_seed tempfile",
    PROCESS: "os.getpid os.getppid os.uname os.getlogin os.getuid os.cpu_count os.getcwd uuid.getnode platform getpass "
    "socket.gethostname psutil pynvml threading.get_ident threading.get_native_id threading.current_thread "
    "threading.active_count threading.enumerate multiprocessing.current_process",
    THREADS: "os.fork os.posix_spawn os.system os.popen _posixsubprocess threading.Thread threading.Timer "
    "threading.start_new_thread concurrent.futures multiprocessing.Pool multiprocessing.Process subprocess asyncio",
    FILES: "builtins.open io.open io.FileIO io.TextIOWrapper io.BufferedReader io.BufferedRandom os.open os.read "
    "os.listdir os.scandir os.walk os.stat os.lstat os.access os.readlink os.path.exists os.path.isfile os.path.isdir "
    "os.path.getmtime os.path.getsize os.path.getctime os.path.getatime os.statvfs glob shutil mmap sqlite3 "
    "builtins.input sys.stdin pathlib.Path.read_text pathlib.Path.read_bytes pathlib.Path.exists pathlib.Path.iterdir "
    "pathlib.Path.stat pathlib.Path.glob pathlib.Path.home pathlib.Path.cwd numpy.fromfile numpy.load numpy.loadtxt "
    "numpy.genfromtxt numpy.memmap torch.load torch.from_file torch.hub pandas.read_csv pandas.read_parquet h5py "
    "pyarrow safetensors.safe_open safetensors.torch.load_file cv2.imread lmdb zarr",
    ENVIRONMENT: "os.environ os.environb os.getenv sys.argv",
    NETWORK: "socket urllib.request http.client requests httpx boto3 ssl select",
    HASHES: "builtins.hash",
    IDENTITY: "builtins.id sys.getrefcount gc weakref.getweakrefcount torch.Tensor.data_ptr "
    "torch.TensorBase.data_ptr torch.UntypedStorage.data_ptr",
    MEMORY: "resource tracemalloc sys._current_frames torch.cuda.memory_allocated torch.cuda.max_memory_allocated "
    "torch.cuda.memory_reserved torch.cuda.max_memory_reserved torch.cuda.memory_stats torch.cuda.mem_get_info "
    "torch.cuda.memory_summary torch.cuda.utilization torch.cuda.temperature torch.cuda.power_draw "
    "torch._cuda_memoryStats",
}  # fmt: skip
SOURCES: dict[str, str] = {name: kind for kind, names in _SOURCES.items() for name in names.split()}
"""Dotted name -> what it reads."""

SEEDED = {
    "numpy.random.Generator", "numpy.random.PCG64", "numpy.random.RandomState", "numpy.random.SeedSequence",
    "numpy.random.default_rng", "random.Random",
}  # fmt: skip
"""Generators that are state if they are given a seed, and start from entropy if not."""

READING_METHODS = {
    "exists", "is_dir", "is_file", "iterdir", "read", "read_bytes", "read_text", "readline", "readlines", "rglob",
    "stat",
}  # fmt: skip
"""Methods of files and paths, whatever the object is called."""

CLOCK_METHODS = {
    "elapsed_time", "monotonic", "now", "perf_counter", "perf_counter_ns", "process_time", "time_ns", "utcnow",
}  # fmt: skip
"""Methods of clocks, whatever the object is called."""

_REAL_NAMES = {
    "_io": "io", "_socket": "socket", "_thread": "threading", "nt": "os", "os._Environ": "os.environ",
    "pandas.io.parsers.readers": "pandas", "posix": "os", "torch._C": "torch", "torch._tensor": "torch",
    "torch.cuda.memory": "torch.cuda", "torch.cuda.random": "torch.cuda", "torch.cuda.streams": "torch.cuda",
    "torch.random": "torch", "genericpath": "os.path", "posixpath": "os.path",
}  # fmt: skip
"""Where a library defines what it offers elsewhere."""

COMPUTING_LIBRARIES = {
    "abc", "argparse", "bisect", "collections", "contextlib", "copy", "dataclasses", "datetime", "enum", "equinox",
    "flax", "florlog", "fractions", "functools", "hashlib", "heapq", "itertools", "jax", "json", "lightgbm", "logging",
    "math", "mlx", "numpy", "operator", "optax", "random", "re", "scipy", "sklearn", "statistics", "string", "time",
    "torch", "torchvision", "tqdm", "textwrap", "typing", "warnings", "xgboost", "zlib",
}  # fmt: skip
"""Libraries that, apart from the sources above, compute from their arguments and from generators that are state."""


@dataclass(frozen=True, slots=True)
class Read:
    """Something read from outside, and where."""

    kind: str
    name: str
    file: str
    line: int

    def __str__(self) -> str:
        return f"reads {self.kind} ({self.name}, {self.file.rpartition('/')[2]}:{self.line})"


def outside(name: str) -> str:
    """What a dotted name, such as ``os.environ.get``, reads from outside; "" for nothing that is known."""
    while name:
        if (kind := SOURCES.get(name)) is not None:
            return kind
        name = name.rpartition(".")[0]
    return ""


def public_name(name: str) -> str:
    """The dotted name by which a program knows what a library defines under another one."""
    module = name
    while module:
        if (real := _REAL_NAMES.get(module)) is not None:
            return real + name[len(module) :]
        module = module.rpartition(".")[0]
    return name


def dotted(origin: str, name: str) -> str:
    """The dotted name of an origin (`florlog.source.names.origins`); ``name``: the text of a builtin's name."""
    if origin == "builtin":
        return f"builtins.{name}"
    kind, _, rest = origin.partition(":")
    return rest.replace(":", ".") if kind in ("module", "from") else ""
