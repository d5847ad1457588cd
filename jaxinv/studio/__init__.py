"""The studio: a page on this machine that inverts photographs, edits them and puts them back.

    jaxinv-studio [RUN_FOLDER]

command.py      the command line
app.py          addresses and answers; pictures.py those of an opened run; context.py what all share
guard.py        who may ask: hosts, origins, token, session, sizes, headers
sessions.py     the folder of one browser: photographs, runs, exports
photographs.py  uploads and their faces, read in a process of its own
inversions.py   runs of jaxinv.launch in processes of their own
work.py         the one thread that computes pictures; the newest request wins
opened.py       a finished run: identities, pictures of edits
controls.py     sliders of the edits that a generator has
regions.py      where an edit may change the picture
searching.py    points that are dragged, and texts
saving.py       pictures, ZIP files; exports.py generators for other tools
static/         the page: HTML, CSS and plain JavaScript

Needs the extra `studio` (Starlette and uvicorn). docs/studio.md.
"""
