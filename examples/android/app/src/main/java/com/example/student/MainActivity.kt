package com.example.student

import android.app.Activity
import android.content.ActivityNotFoundException
import android.content.Intent
import android.graphics.Bitmap
import android.graphics.ImageDecoder
import android.net.Uri
import android.os.Bundle
import android.provider.MediaStore
import android.widget.Button
import android.widget.ImageView
import android.widget.TextView
import java.io.FileInputStream
import java.io.IOException
import java.nio.ByteBuffer
import java.nio.channels.FileChannel
import java.util.concurrent.Executors
import org.json.JSONArray
import org.json.JSONObject

/** Names what a picture shows, and how long that took. */
class MainActivity : Activity() {
    // Off the main thread, and one thread only: an interpreter is not for several.
    private val worker = Executors.newSingleThreadExecutor()
    private val model by lazy { Model(modelFile()) }
    private val labels by lazy { readLabels() }

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setContentView(R.layout.main)
        findViewById<Button>(R.id.camera).setOnClickListener {
            ask(Intent(MediaStore.ACTION_IMAGE_CAPTURE), CAMERA)
        }
        findViewById<Button>(R.id.gallery).setOnClickListener {
            ask(Intent(Intent.ACTION_GET_CONTENT).setType("image/*"), GALLERY)
        }
    }

    override fun onDestroy() {
        worker.shutdown()
        super.onDestroy()
    }

    override fun onActivityResult(requestCode: Int, resultCode: Int, data: Intent?) {
        super.onActivityResult(requestCode, resultCode, data)
        if (resultCode != RESULT_OK || data == null) return
        worker.execute {
            val picture = try {
                if (requestCode == CAMERA) thumbnail(data) else data.data?.let(::photo)
            } catch (error: IOException) {
                show("This picture cannot be read: ${error.message}")
                return@execute
            }
            if (picture != null) show(answer(picture), picture)
        }
    }

    private fun ask(intent: Intent, request: Int) {
        try {
            startActivityForResult(intent, request)
        } catch (error: ActivityNotFoundException) {
            show("No app here gives pictures.")
        }
    }

    private fun answer(picture: Bitmap): String {
        val model = model // loaded before the clock starts
        val started = System.nanoTime()
        val number = model.classOf(picture)
        val milliseconds = (System.nanoTime() - started) / 1e6
        val name = labels?.getString(number) ?: "class $number"
        return "%s\n%.1f ms".format(name, milliseconds)
    }

    private fun show(text: String, picture: Bitmap? = null) = runOnUiThread {
        findViewById<TextView>(R.id.answer).text = text
        picture?.let(findViewById<ImageView>(R.id.picture)::setImageBitmap)
    }

    /** The small picture that a camera app answers with; it needs no permission. */
    @Suppress("DEPRECATION") // the other way came with Android 13
    private fun thumbnail(data: Intent): Bitmap? = data.getParcelableExtra("data")

    private fun photo(uri: Uri): Bitmap {
        val source = ImageDecoder.createSource(contentResolver, uri)
        return ImageDecoder.decodeBitmap(source) { decoder, info, _ ->
            decoder.allocator = ImageDecoder.ALLOCATOR_SOFTWARE // its pixels can be read
            decoder.setTargetSampleSize(1 + maxOf(info.size.width, info.size.height) / 2048)
        }
    }

    private fun modelFile(): ByteBuffer = assets.openFd("student.tflite").use {
        FileInputStream(it.fileDescriptor).channel
            .map(FileChannel.MapMode.READ_ONLY, it.startOffset, it.declaredLength)
    }

    private fun readLabels(): JSONArray? {
        val told = assets.open("model.json").bufferedReader().use { it.readText() }
        return JSONObject(told).optJSONArray("labels")
    }

    private companion object {
        const val CAMERA = 1
        const val GALLERY = 2
    }
}
