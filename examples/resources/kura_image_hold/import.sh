# By the ids of image and hold, as "kura image show" tells them.
terraform import kura_image_hold.audit 01JDZK3Q8X4T9V2M6B7N5C1R0E/01JDZK3Q8X4T9V2M6B7N5C1R0P
