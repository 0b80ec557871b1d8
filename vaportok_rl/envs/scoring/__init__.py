"""From lengths to outcomes by the network: encode once, decode each (clip, length) once."""
