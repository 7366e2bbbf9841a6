"""The model store: checkpoints on this machine, how they come here, and whether they are still what they were.

    catalog    names of models and what is known of them
    folder     where models live, locks, disk space, hashes
    manifest   what a stored model consists of; without one a model does not exist
    convert    published weight files to safetensors
    hub        the only module of the program that opens a connection
    acquire    pull and convert: from a hub or a folder to a stored model
    pack       one file for a machine without a network

Nothing here loads a network, and nothing heavy is imported before it is needed.
"""
