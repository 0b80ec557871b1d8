"""Files of tokenizers: checkpoint folders, hub repositories, and LARP's."""
