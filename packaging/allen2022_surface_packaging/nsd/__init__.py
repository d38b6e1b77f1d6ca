"""The Natural Scenes Dataset as it lies on disk or in a bucket: facts, files, trials, regions, inspection, simulation."""
