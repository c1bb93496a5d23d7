"""The built-in plugins, one file each. They are loaded by code, see `wrapper.pipeline`."""
