"""The routers, one module each; import the one you need from its module."""
