"""SVG read back as XML."""

import xml.etree.ElementTree as ET

SVG = "{http://www.w3.org/2000/svg}"


def parsed(figure) -> ET.Element:
    return ET.fromstring(str(figure).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


def rects(root, look):
    return [rect for rect in root.iter(f"{SVG}rect") if look in rect.attrib["class"].split()]
