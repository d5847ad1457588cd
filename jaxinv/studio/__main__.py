"""python -m jaxinv.studio, as the command jaxinv-studio."""

from jaxinv.studio.command import run

if __name__ == '__main__':
    run()
