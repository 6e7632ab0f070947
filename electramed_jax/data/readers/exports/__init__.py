"""Readers of bibliographic and annotated exports: MEDLINE, RIS, PubTator, BioC."""
