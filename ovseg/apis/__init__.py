"""ovseg in five lines: ``load`` a method, set the words, call it on pictures."""
