"""transformers' AutoConfig and AutoModel for the folders of `vlc.Model.save_pretrained`; `import vlc` enters them there."""
