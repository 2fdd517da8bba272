"""Long torture of a small site: `python -m torture kills --seconds 600 --seed 1`, or `make torture SECONDS=600`."""
