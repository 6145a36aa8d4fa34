"""What of the documentation is made from the code: tables of settings, and the pages of names.

`python -m tools.docs` writes them; `tests/test_docs_generated.py` holds that they are as they would be written.
"""
