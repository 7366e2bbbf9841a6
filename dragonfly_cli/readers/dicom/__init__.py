"""DICOM: from one file, a folder, a DICOMDIR or an archive to a source that shows pictures as a viewer would.

``choices`` (what a user may choose) and ``places`` (where files lie) are light; everything else imports pydicom.
Nothing is imported here, so that options can be checked without it.
"""
