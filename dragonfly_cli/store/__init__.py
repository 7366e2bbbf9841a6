"""The model store: checkpoints on this machine, how they come here, and whether they are still what they were.

    catalog    names of models and what is known of them
    built_in   where the demonstration checkpoint is
    folder     where models live, locks, disk space, hashes
    manifest   what a stored model consists of; without one a model does not exist
    convert    published weight files to safetensors
    hub        the only module of the program that opens a connection
    hub_errors what goes wrong with that
    copies     full, 4-bit, or both
    acquire    pull and convert: from a hub or a folder to a stored model
    pack       one file for a machine without a network
    report     what is here, and whether it is still what it was
    removal    deleting

Nothing here loads a network, and nothing heavy is imported before it is needed.
"""
