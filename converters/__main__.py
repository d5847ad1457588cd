"""`python -m converters SRC DST` in a checkout; installed it is `jaxinv-convert`."""

from jaxinv.convert import run

if __name__ == '__main__':
    run()
