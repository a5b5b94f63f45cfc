from lib import data
from lib.model import Net
from lib.trainer import fit


def main():
    x, y = data.load()
    fit(Net(), x, y, 4)


if __name__ == "__main__":
    main()
