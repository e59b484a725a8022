"""The `dts` command: one module per noun, loaded when it is called."""
