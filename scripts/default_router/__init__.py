"""Parts of `scripts/build_default_router.py`."""
