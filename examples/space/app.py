"""Starts the studio in a Space of the Hugging Face hub."""

import os

PORT = 7860  # app_port of README.md


def command(environment) -> list[str]:
    """The command line. environment: SPACE_HOST is the name by which browsers reach the Space."""
    arguments = ['jaxinv-studio', '--host=0.0.0.0', f'--port={PORT}', '--folder=/tmp/studio']
    if environment.get('SPACE_HOST'):
        arguments.append(f'--allow-host={environment["SPACE_HOST"]}')
    return arguments


if __name__ == '__main__':
    if not os.environ.get('JAXINV_STUDIO_TOKEN'):
        raise SystemExit('Add the secret JAXINV_STUDIO_TOKEN in the settings of the Space.')
    arguments = command(os.environ)
    os.execvp(arguments[0], arguments)
