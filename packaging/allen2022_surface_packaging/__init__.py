"""How the data was made: raw files of the Natural Scenes Dataset in, a Brain-Score release out.

The modules in the order in which the data passes them::

    storage -> nsd -> trials -> regions -> responses -> sessions -> assembly / stimuli -> release -> build
                                                                                       -> checks -> upload

`nsd` reads the raw files, `trials` tells what was shown when, `regions` which vertices count, `responses` standardises
and averages, `sessions` runs that over every session, `assembly` and `stimuli` write, `build` is the whole as one
paragraph, `checks` holds input and output against what they should be. `simulation` makes a small NSD to try it on.
"""

__version__ = "0.1.0"
