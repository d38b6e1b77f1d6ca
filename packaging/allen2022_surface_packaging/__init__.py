"""How the data was made: raw files of the Natural Scenes Dataset in, a Brain-Score release out, and that to S3.

The modules in the order in which the data passes them::

    storage -> nsd -> trials -> regions -> responses -> sessions -> assembly / stimuli -> build -> release
                                                                                    objects -> bucket -> upload -> export

`nsd` reads the raw files wherever `storage` finds them, `trials` tells what was shown when, `regions` which vertices count,
`responses` standardises and averages, `sessions` runs that over every session and keeps the result, `prepared` reads what an
earlier packaging left, `assembly` and `stimuli` write, and `build` is the whole as one paragraph. `objects` makes the brainio
files of a release, `bucket` is S3 as `upload` needs it, and `export` writes the pull request.

Beside that line: `checks` holds input and output against what they should be, `recomputation` computes a release again by
another path, `comparison` sets two side by side, `report` and `figures` show one, `simulation` makes a small NSD to try
everything on, `demo` does.
"""

__version__ = "0.1.0"
