"""Builds the module of declarations from the header, which needs no C compiler."""

from setuptools import setup

setup(cffi_modules=["declarations.py:ffi"])
