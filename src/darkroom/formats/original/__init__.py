"""The layouts that models were first published in, for tools that read no diffusers folder."""
